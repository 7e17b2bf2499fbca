// Callbacks of AWS' SDK for JavaScript v3: a request a line in JSON on stdin, its outcome a line on stdout.
//     NODE_PATH=…/node_modules node sdk_node.cjs
'use strict';
const sdk = require('@aws-sdk/client-apigatewaymanagementapi');
const commands = {
  post: sdk.PostToConnectionCommand, get: sdk.GetConnectionCommand, delete: sdk.DeleteConnectionCommand,
};

async function call({ endpoint, key, secret, token, verb, id, data }) {
  const client = new sdk.ApiGatewayManagementApiClient({
    endpoint, region: 'eu-central-1', maxAttempts: 1,
    credentials: { accessKeyId: key, secretAccessKey: secret, sessionToken: token || undefined },
  });
  const input = { ConnectionId: id };
  if (verb === 'post') input.Data = Buffer.from(data, 'base64');
  try {
    const answer = await client.send(new commands[verb](input));
    const { Identity: from = {}, ConnectedAt: since, LastActiveAt: active } = answer;
    return { outcome: 'ok', ip: from.SourceIp, agent: from.UserAgent, since: since / 1000, active: active / 1000 };
  } catch (error) {
    return { outcome: error.name, why: error.message };
  } finally {
    client.destroy();
  }
}

(async () => {
  for await (const line of require('readline').createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await call(JSON.parse(line))));
  }
})();
