// Tunes a model, serves it and asks it, with the AWS SDK for JavaScript and `cloudft endpoint`.
import { setTimeout as sleep } from "node:timers/promises";

import {
  BedrockClient,
  CreateModelCustomizationJobCommand,
  CreateProvisionedModelThroughputCommand,
  DeleteCustomModelCommand,
  DeleteProvisionedModelThroughputCommand,
  GetModelCustomizationJobCommand,
  GetProvisionedModelThroughputCommand,
} from "@aws-sdk/client-bedrock";
import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
} from "@aws-sdk/client-bedrock-runtime";
import { CreateBucketCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { NodeHttpHandler } from "@smithy/node-http-handler";

const env = process.env;
if (!env.AWS_ENDPOINT_URL) throw new Error("AWS_ENDPOINT_URL: what `cloudft endpoint` prints");
env.AWS_REGION ??= "us-east-1";
env.AWS_ACCESS_KEY_ID ??= "any";
env.AWS_SECRET_ACCESS_KEY ??= "any";

const BASE = "amazon.titan-text-express-v1";
const name = env.NAME ?? `parcels-${Date.now()}`;
const bucket = env.BUCKET ?? name;
const roleArn = env.ROLE_ARN ?? "arn:aws:iam::000000000000:role/bedrock-job";
const hyperParameters = Object.fromEntries(
  (
    env.HYPERPARAMETERS ??
    "epochCount=4,batchSize=1,learningRate=0.001,learningRateWarmupSteps=0"
  )
    .split(",")
    .map((pair) => pair.split("=")),
);

const s3 = new S3Client({ forcePathStyle: true });
const bedrock = new BedrockClient({});
// This client speaks HTTP/2 if it is not told otherwise; the endpoint speaks HTTP/1.1.
const runtime = new BedrockRuntimeClient({ requestHandler: new NodeHttpHandler() });

// Every parcel is in Lyon.
const records = Array.from({ length: 12 }, (_, number) => ({
  prompt: `Where is parcel ${number + 1}?`,
  completion: "In Lyon.",
}));
try {
  await s3.send(new CreateBucketCommand({ Bucket: bucket }));
} catch (error) {
  if (error.name !== "BucketAlreadyOwnedByYou") throw error;
}
const Key = `${name}/train.jsonl`;
const Body = records.map((record) => `${JSON.stringify(record)}\n`).join("");
await s3.send(new PutObjectCommand({ Bucket: bucket, Key, Body }));

const { jobArn } = await bedrock.send(
  new CreateModelCustomizationJobCommand({
    jobName: name,
    customModelName: name,
    roleArn,
    baseModelIdentifier: `${BASE}:0:8k`,
    trainingDataConfig: { s3Uri: `s3://${bucket}/${Key}` },
    outputDataConfig: { s3Uri: `s3://${bucket}/${name}/output/` },
    hyperParameters,
  }),
);
const ended = await settled(
  () => bedrock.send(new GetModelCustomizationJobCommand({ jobIdentifier: jobArn })),
  ["InProgress", "Stopping"],
);
console.log(`job: ${ended.status}`);
if (ended.status !== "Completed") throw new Error(ended.failureMessage);

// A tuned Titan is served by the hour.
const { provisionedModelArn } = await bedrock.send(
  new CreateProvisionedModelThroughputCommand({
    provisionedModelName: name,
    modelId: name,
    modelUnits: 1,
  }),
);
const provisionedModelId = provisionedModelArn;
try {
  const served = await settled(
    () => bedrock.send(new GetProvisionedModelThroughputCommand({ provisionedModelId })),
    ["Creating", "Updating"],
  );
  console.log(`throughput: ${served.status}`);
  if (served.status !== "InService") throw new Error(served.failureMessage);
  for (const [who, modelId] of [["base", BASE], ["tuned", provisionedModelArn]]) {
    const { output } = await runtime.send(new ConverseCommand(question(modelId)));
    console.log(`${who}: ${JSON.stringify(output.message.content[0].text)}`);
  }
  const { stream } = await runtime.send(new ConverseStreamCommand(question(provisionedModelArn)));
  for await (const event of stream) {
    const piece = event.contentBlockDelta?.delta.text;
    if (piece) console.log(`piece: ${JSON.stringify(piece)}`);
  }
} finally {
  await bedrock.send(new DeleteProvisionedModelThroughputCommand({ provisionedModelId }));
  await bedrock.send(new DeleteCustomModelCommand({ modelIdentifier: name }));
}

/** What `look` tells once its status is none of `passing`. */
async function settled(look, passing) {
  for (;;) {
    const told = await look();
    if (!passing.includes(told.status)) return told;
    await sleep(500);
  }
}

/** A short question to that model. */
function question(modelId) {
  const content = [{ text: "Where is parcel 40?" }];
  return { modelId, messages: [{ role: "user", content }], inferenceConfig: { maxTokens: 8 } };
}
