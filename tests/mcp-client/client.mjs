// The official client of MCP with `countersign mcp`: lists the tools, asks, waits, gets the decision, uses it.
//
// Variables: PROGRAM, COUNTERSIGN_URL, SLACK_SIGNING_SECRET, and WAIT, for how many seconds nobody decides.
// With MCP_URL and MCP_TOKEN the server is one that listens there; else it is started.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const { PROGRAM, COUNTERSIGN_URL, SLACK_SIGNING_SECRET, WAIT, MCP_URL, MCP_TOKEN, LLVM_PROFILE_FILE } = process.env;

// Where a program that counts its lines writes them.
const counters = LLVM_PROFILE_FILE ? { LLVM_PROFILE_FILE } : {};
const transport = MCP_URL
  ? new StreamableHTTPClientTransport(new URL(MCP_URL), {
      requestInit: { headers: { Authorization: `Bearer ${MCP_TOKEN}` } },
    })
  : new StdioClientTransport({
      command: PROGRAM,
      args: ['mcp', '--requester', 'slack:U0REQ', '--repo', 'acme/shop'],
      env: { COUNTERSIGN_URL, ...counters },
    });
const client = new Client({ name: 'test', version: '1' });
await client.connect(transport);

async function call(name, args, options) {
  const result = await client.callTool({ name, arguments: args }, undefined, options);
  assert.ok(!result.isError, JSON.stringify(result));
  return result.structuredContent;
}

const { tools } = await client.listTools();
assert.deepEqual(
  tools.map((tool) => tool.name).sort(),
  ['cancel_request', 'check_approval', 'consume_approval', 'report_outcome', 'request_approval'],
);

const params = { ref: 'v1.2.3', replicas: 2 };
const asked = await call('request_approval', { action: 'scale', params, why: 'Ship the fix' });
assert.equal(asked.approved, false);
const { handle } = asked;

const began = Date.now();
const heard = [];
const left = () => Number(WAIT) - (Date.now() - began) / 1000;
let state;
do {
  const wait_seconds = Math.max(0, Math.min(50, Math.ceil(left())));
  state = await call('check_approval', { handle, wait_seconds }, { onprogress: (told) => heard.push(told) });
  assert.equal(state.pending, true);
} while (left() > 0);
if (Number(WAIT) > 0) assert.ok(heard.length > 0, 'no progress was told');

const early = await client.callTool({ name: 'consume_approval', arguments: { handle, params } });
assert.ok(early.isError, 'nobody has decided yet');

// People decide while a call waits.
const deciding = call('check_approval', { handle, wait_seconds: 50 });
execFileSync(PROGRAM, ['dev', 'click', '--url', COUNTERSIGN_URL, '--user', 'U0ALICE', 'approve', asked.request_id], {
  env: { SLACK_SIGNING_SECRET, ...counters },
});
state = await deciding;
assert.deepEqual([state.status, state.approved, state.approvers], ['approved', true, ['U0ALICE']]);

const other = await client.callTool({ name: 'consume_approval', arguments: { handle, params: { ...params, replicas: 3 } } });
assert.ok(other.isError && other.content[0].text.includes('replicas'), JSON.stringify(other));
const used = await call('consume_approval', { handle, params: state.approved_params });
assert.deepEqual(used.approved_params, params);
const again = await client.callTool({ name: 'consume_approval', arguments: { handle, params } });
assert.ok(again.isError, 'an approval is used once');
await call('report_outcome', { handle, result: 'succeeded' });
await client.close();
console.log(`approved after ${Math.round((Date.now() - began) / 1000)} s, ${heard.length} notifications of progress`);
