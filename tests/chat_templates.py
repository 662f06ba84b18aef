"""Short chat templates, each in the form of a model family: how it takes tools and reasoning.

`<|im_end|>` stands for each family's own end mark, because the tests' tokenizer has it.
"""

from __future__ import annotations

_QWEN_HEAD = (
    "{%- if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}"
    "{{ messages[0].content }}\n\n{% endif %}# Tools\n<tools>"
    "{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n"
    "{{ messages[0].content }}<|im_end|>\n{% endif %}"
)
_QWEN_CALLS = (
    "{% for call in message.tool_calls %}"
    "{% if not loop.first or content %}{{ '\n' }}{% endif %}"
    "{% if call.function %}{% set call = call.function %}{% endif %}"
    '<tool_call>\n{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}"
)
_QWEN_RESULT = (
    "{% elif message.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "\n<tool_response>\n{{ message.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
)
_QWEN_USER = (
    "{% if message.role == 'user' or (message.role == 'system' and not loop.first) %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
)
QWEN25 = (
    _QWEN_HEAD
    + "{% for message in messages %}"
    + _QWEN_USER
    + "{% elif message.role == 'assistant' %}{% set content = message.content %}"
    + "<|im_start|>assistant\n{% if content %}{{ content }}{% endif %}"
    + _QWEN_CALLS
    + "<|im_end|>\n"
    + _QWEN_RESULT
    + "{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Tools as JSON in the system message; no field for reasoning, and texts are kept as they are."""
_QWEN3_ASSISTANT = (
    "{% elif message.role == 'assistant' %}"
    "{% set content = message.content or '' %}{% set thought = '' %}"
    "{% if message.reasoning_content is string %}{% set thought = message.reasoning_content %}"
    "{% elif '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n"
    "{% if loop.index0 > ns.question and (loop.last or thought) %}"
    "<think>\n{{ thought.strip('\n') }}\n</think>\n\n{{ content.lstrip('\n') }}"
    "{% else %}{{ content }}{% endif %}"
)
_QWEN3_BEFORE_PROMPT = (
    _QWEN_HEAD
    + "{% set ns = namespace(question=-1) %}{% for message in messages %}"
    + "{% if message.role == 'user' %}{% set ns.question = loop.index0 %}{% endif %}{% endfor %}"
    + "{% for message in messages %}"
    + _QWEN_USER
    + _QWEN3_ASSISTANT
    + _QWEN_CALLS
    + "<|im_end|>\n"
    + _QWEN_RESULT
    + "{% endif %}{% endfor %}"
)
QWEN3 = _QWEN3_BEFORE_PROMPT + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
"""A field for reasoning, kept after the last question alone; an empty thought where none is."""
QWEN3_THINKING = (
    _QWEN3_BEFORE_PROMPT
    + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""As QWEN3, and its prompt opens the reasoning."""
LLAMA31 = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|im_start|>system\n\n{{ system }}<|im_end|>"
    "{% if tools %}{% set first = messages[0].content | trim %}{% set messages = messages[1:] %}"
    "<|im_start|>user\n\nGiven the following functions:\n\n"
    "{% for tool in tools %}{{ tool | tojson(indent=4) }}\n\n{% endfor %}"
    "{{ first }}<|im_end|>{% endif %}"
    "{% for message in messages %}"
    "{% if not (message.role in ['tool', 'ipython'] or 'tool_calls' in message) %}"
    "<|im_start|>{{ message.role }}\n\n{{ message.content | trim }}<|im_end|>"
    "{% elif 'tool_calls' in message %}{% if message.tool_calls | length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "{% set call = message.tool_calls[0].function %}<|im_start|>assistant\n\n"
    '{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}<|im_end|>'
    "{% else %}<|im_start|>ipython\n\n{{ message.content | tojson }}<|im_end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
"""Tools in the first user message, one call a turn, no text beside it; results as JSON text."""
MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(question=-1) %}{% for message in messages %}"
    "{% if message.role == 'user' %}{% set ns.question = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}"
    "{% if tools and loop.index0 == ns.question %}"
    "[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {{ message.content }}[/INST]"
    "{% elif message.tool_calls is defined and message.tool_calls is not none %}[TOOL_CALLS] ["
    "{% for call in message.tool_calls %}{% if call.id is not defined or call.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}"
    '{% endif %}{{ (call.function | tojson)[:-1] }}, "id": "{{ call.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}"
    "{% elif message.role == 'assistant' %} {{ message.content | trim }}{{ eos_token }}"
    "{% elif message.role == 'tool' %}"
    '[TOOL_RESULTS] {"content": {{ message.content | string }}, '
    '"call_id": "{{ message.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% elif message.role == 'system' %}[INST] {{ message.content }}[/INST]"
    "{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
)
"""Tools before the last question alone, ids of 9 characters, no generation prompt."""
GPT_OSS = (
    "{% if tools %}<|im_start|>developer<|message|># Tools\n\nnamespace functions {\n"
    "{% for tool in tools %}type {{ tool.function.name }} = "
    "(_: {{ tool.function.parameters | tojson }}) => any;\n{% endfor %}}<|end|>{% endif %}"
    "{% set last = namespace(name='') %}{% for message in messages %}"
    "{% if message.role == 'assistant' and 'tool_calls' in message %}"
    "{% set later = namespace(final=false) %}{% for other in messages[loop.index:] %}"
    "{% if other.role == 'assistant' and 'tool_calls' not in other %}"
    "{% set later.final = true %}{% endif %}{% endfor %}"
    "{% if message.content and message.thinking %}"
    "{{ raise_exception('Cannot pass both content and thinking with tool calls!') }}"
    "{% elif (message.content or message.thinking) and not later.final %}"
    "<|im_start|>assistant<|channel|>analysis<|message|>{{ message.content or message.thinking }}"
    "<|end|>{% endif %}{% set call = message.tool_calls[0].function %}"
    "<|im_start|>assistant to=functions.{{ call.name }}<|channel|>commentary json<|message|>"
    "{{ call.arguments | tojson }}<|im_end|>{% set last.name = call.name %}"
    "{% elif message.role == 'assistant' %}"
    "{% if loop.last and not add_generation_prompt and message.thinking is defined %}"
    "<|im_start|>assistant<|channel|>analysis<|message|>{{ message.thinking }}<|end|>{% endif %}"
    "<|im_start|>assistant<|channel|>final<|message|>{{ message.content }}<|im_end|>"
    "{% elif message.role == 'tool' %}<|im_start|>functions.{{ last.name }} to=assistant"
    "<|channel|>commentary<|message|>{{ message.content | tojson }}<|end|>"
    "{% else %}<|im_start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
"""Channels: reasoning is a message of its own, left out once the final answer is known."""
_DEEPSEEK_BEFORE_PROMPT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}<|User|>{{ message.content }}"
    "{% elif message.role == 'assistant' and message.tool_calls is defined %}"
    "{{ '<|Assistant|>' + message.content }}"
    "{% for call in message.tool_calls %}<|call|>{{ call.type }}<|sep|>{{ call.function.name }}"
    "\n```json\n{{ '' + call.function.arguments }}\n```<|call_end|>{% endfor %}{{ eos_token }}"
    "{% elif message.role == 'assistant' %}<|Assistant|>"
    "{{ message.content.split('</think>')[-1].lstrip() }}{{ eos_token }}"
    "{% elif message.role == 'tool' %}<|output|>{{ message.content }}<|output_end|>"
    "{% endif %}{% endfor %}"
)
DEEPSEEK_R1 = (
    _DEEPSEEK_BEFORE_PROMPT + "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
"""No field for reasoning: past turns lose it, and the prompt opens it. Arguments as JSON text."""
DEEPSEEK_R1_OLD = _DEEPSEEK_BEFORE_PROMPT + "{% if add_generation_prompt %}<|Assistant|>{% endif %}"
"""As DEEPSEEK_R1, but the model opens the reasoning itself."""
