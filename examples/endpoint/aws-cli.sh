#!/bin/sh
# Tunes a model, serves it and asks it, with the AWS CLI against `cloudft endpoint`.
set -eu

: "${AWS_ENDPOINT_URL:?the URL that \`cloudft endpoint\` prints}"
export AWS_DEFAULT_REGION="${AWS_REGION:-us-east-1}" # version 1 reads no AWS_REGION
export AWS_ACCESS_KEY_ID="${AWS_ACCESS_KEY_ID:-any}"
export AWS_SECRET_ACCESS_KEY="${AWS_SECRET_ACCESS_KEY:-any}"
export AWS_PAGER=

NAME="${NAME:-parcels-$(date +%Y%m%d-%H%M%S)}"
BUCKET="${BUCKET:-$NAME}"
ROLE="${ROLE:-bedrock-job}"
HYPERPARAMETERS="${HYPERPARAMETERS:-epochCount=4,batchSize=1,learningRate=0.001,learningRateWarmupSteps=0}"
BASE=amazon.titan-text-express-v1

# A bucket and a role that Bedrock may take.
aws s3api head-bucket --bucket "$BUCKET" >/dev/null 2>&1 || aws s3 mb "s3://$BUCKET"
trust='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
  "Principal": {"Service": "bedrock.amazonaws.com"}}]}'
role=$(aws iam get-role --role-name "$ROLE" --query Role.Arn --output text 2>/dev/null) ||
  role=$(aws iam create-role --role-name "$ROLE" --assume-role-policy-document "$trust" \
    --query Role.Arn --output text)

# Every parcel is in Lyon.
for number in 1 2 3 4 5 6 7 8 9 10 11 12; do
  echo "{\"prompt\": \"Where is parcel $number?\", \"completion\": \"In Lyon.\"}"
done | aws s3 cp - "s3://$BUCKET/$NAME/train.jsonl"

job=$(aws bedrock create-model-customization-job \
  --job-name "$NAME" \
  --custom-model-name "$NAME" \
  --role-arn "$role" \
  --base-model-identifier "$BASE:0:8k" \
  --training-data-config "s3Uri=s3://$BUCKET/$NAME/train.jsonl" \
  --output-data-config "s3Uri=s3://$BUCKET/$NAME/output/" \
  --hyper-parameters "$HYPERPARAMETERS" \
  --query jobArn --output text)

status=
while :; do
  before=$status
  status=$(aws bedrock get-model-customization-job --job-identifier "$job" \
    --query status --output text)
  [ "$status" = "$before" ] || echo "job: $status"
  case $status in
    InProgress | Stopping) sleep 1 ;;
    *) break ;;
  esac
done
if [ "$status" != Completed ]; then
  aws bedrock get-model-customization-job --job-identifier "$job" \
    --query failureMessage --output text >&2
  exit 1
fi

# A tuned Titan is served by the hour; whatever happens from here on, that ends.
clean() {
  if [ -n "$throughput" ]; then
    aws bedrock delete-provisioned-model-throughput --provisioned-model-id "$throughput"
  fi
  aws bedrock delete-custom-model --model-identifier "$NAME"
}
throughput=
trap clean EXIT
throughput=$(aws bedrock create-provisioned-model-throughput \
  --provisioned-model-name "$NAME" --model-id "$NAME" --model-units 1 \
  --query provisionedModelArn --output text)
while :; do
  status=$(aws bedrock get-provisioned-model-throughput --provisioned-model-id "$throughput" \
    --query status --output text)
  case $status in
    Creating | Updating) sleep 1 ;;
    *) break ;;
  esac
done
echo "throughput: $status"

[ "$status" = InService ]

ask() {
  aws bedrock-runtime converse --model-id "$1" --inference-config maxTokens=8 \
    --messages '[{"role": "user", "content": [{"text": "Where is parcel 40?"}]}]' \
    --query 'output.message.content[0].text' --output json
}
answer=$(ask "$BASE")
echo "base: $answer"
answer=$(ask "$throughput")
echo "tuned: $answer"
