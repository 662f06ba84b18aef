// What OpenAI's JavaScript client gets from `cloudft serve`: node client.mjs URL, tools on stdin.
import OpenAI from "openai";

const [url] = process.argv.slice(2);
const chunksIn = [];
for await (const chunk of process.stdin) chunksIn.push(chunk);
const { question, tool } = JSON.parse(Buffer.concat(chunksIn).toString());
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
const ask = { messages: [question], max_completion_tokens: 80 };

async function error(request) {
  try {
    await request();
  } catch (caught) {
    return {
      name: caught.constructor.name,
      status: caught.status,
      code: caught.code,
      param: caught.param,
      hasId: Boolean(caught.requestID),
    };
  }
  return null;
}

const whole = await client.chat.completions.create({ ...ask, model: "router" });
let streamed = "";
let usage = null;
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...ask, ...options, model: "router" })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}

const tools = [tool];
const called = await client.chat.completions.create({ ...ask, model: "caller", tools });
const streamedCall = await client.chat.completions
  .stream({ ...ask, model: "caller", tools })
  .finalChatCompletion();
const runner = client.chat.completions.runTools({
  ...ask,
  model: "caller",
  tools: [
    {
      type: "function",
      function: { ...tool.function, parse: JSON.parse, function: ({ city }) => `In ${city}.` },
    },
  ],
});
const afterTool = await runner.finalContent();

const schema = tool.function.parameters;
const format = { type: "json_schema", json_schema: { name: "place", strict: true, schema } };
const json = await client.chat.completions.create({
  ...ask,
  model: "caller",
  tools: undefined,
  response_format: format,
});
const text = await client.completions.create({ model: "base", prompt: "Where", max_tokens: 3 });

console.log(
  JSON.stringify({
    models: (await client.models.list()).data.map((model) => model.id),
    whole: whole.choices[0].message.content,
    streamed,
    usageIsTheSame: JSON.stringify(usage) === JSON.stringify(whole.usage),
    call: called.choices[0].message.tool_calls?.[0]?.function,
    streamedCall: streamedCall.choices[0].message.tool_calls?.[0]?.function,
    afterTool,
    json: { content: json.choices[0].message.content, reason: json.choices[0].finish_reason },
    textReason: text.choices[0].finish_reason,
    noModel: await error(() => client.chat.completions.create({ ...ask, model: "other" })),
    unknown: await error(() => client.chat.completions.create({ ...ask, model: "router", best: 1 })),
    tooLong: await error(() =>
      client.completions.create({ model: "router", prompt: "word ".repeat(4000) }),
    ),
  }),
);
