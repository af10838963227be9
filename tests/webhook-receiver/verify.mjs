// Verifies messages with the library for JavaScript: SECRET, and on the standard input a JSON array of
// { headers, body }. Fails if one is not what was signed, or if one that was changed passes for it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Webhook } from 'standardwebhooks';

const webhook = new Webhook(process.env.SECRET);
const messages = JSON.parse(readFileSync(0, 'utf8'));
assert(messages.length > 0);
for (const { headers, body } of messages) {
  const { type, timestamp, data } = webhook.verify(body, headers);
  assert(type.startsWith('request.') && timestamp && data.requestId, body);
  assert.throws(() => webhook.verify(body.replace(data.requestId, 'req_other'), headers));
  assert.throws(() => webhook.verify(body, { ...headers, 'webhook-id': 'other' }));
  const old = String(Number(headers['webhook-timestamp']) - 1);
  assert.throws(() => webhook.verify(body, { ...headers, 'webhook-timestamp': old }));
}
console.log(`verified ${messages.length}`);
