"""Which rows each family computes right: written by tools/measure_families.py."""

VERSIONS = ("5.20.2", "5.21.0", "5.22.2", "5.23.0", "5.24.0")
"""The versions of transformers that were measured, in order."""
_PADDING_FREE = """
apertus apertus1p5_text arcee aria_text axk1 axk2 beam bitnet codegen cohere cohere2 cohere2_moe
cohere_compass_text ctrl cwm dbrx deepseek_v2 deepseek_v3 deepseek_v32 diffllama doge dory dots1
dots3_note_text ernie4_5 ernie4_5_moe exaone exaone4 exaone_moe flex_olmo flint gemma gemma2
gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa
gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gptj granite granite_swa granitemoe
granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4
hyperclovax internlm3 iquestcoder jais2 jetmoe kolibri1 laguna llama longcat_flash mellum
mimo_v2_flash minicpm3 minimax_m2 ministral ministral3 mistral mixtral modernbert-decoder nanochat
nemotron olmo olmo2 olmo3 olmoe persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe sarvam_mla
sarvam_moe seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma youtu
"""
PADDING_FREE = frozenset(_PADDING_FREE.split())
"""Families that are right with rows one after another, and padded on the right."""
_PADDED = """
afmoe bailing_hybrid bamba bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot
blenderbot-small bloom camembert data2vec-text deepseek_v4 electra ernie falcon falcon_h1
falcon_mamba gpt_oss granitemoehybrid inkling2_loop_text inkling2_text inkling_text jamba
kimi_linear lara_mini lfm2 lfm2_moe lfm3 llama4_text mamba mamba2 marian mbart megatron-bert minimax
minimax_m3_vl_text mpt mvp nemotron_h olmo_hybrid openai-gpt opt pegasus plbart qwen3_5_moe_text
qwen3_5_text qwen3_next qwen4_exp_text recurrent_gemma rembert roberta roberta-prelayernorm roc_bert
roformer rwkv xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod zamba zamba2 zaya
"""
PADDED = frozenset(_PADDED.split())
"""Families that read across rows without padding, and are right padded on the right."""
_ROW_BY_ROW = """
cpmant prophetnet
"""
ROW_BY_ROW = frozenset(_ROW_BY_ROW.split())
"""Families that are right with one row at a time alone."""
