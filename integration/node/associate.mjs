// node associate.mjs PROXY HOST:PORT...: sends one datagram to each through a UDP association of the
// socks package, from one socket, and prints the answers, one a line.
import dgram from 'node:dgram';
import { SocksClient } from 'socks';

const [proxy, ...targets] = process.argv.slice(2);
const { hostname, port, username, password } = new URL(proxy);
const options = {
  proxy: { host: hostname, port: Number(port), type: 5 },
  command: 'associate',
  destination: { host: '0.0.0.0', port: 0 },
};
if (username) Object.assign(options.proxy, { userId: username, password });

const udp = dgram.createSocket('udp4');
const client = new SocksClient(options);
client.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
client.on('established', async ({ remoteHost }) => {
  for (const target of targets) {
    const [, host, number] = target.match(/^\[?(.*?)\]?:(\d+)$/);
    const frame = SocksClient.createUDPFrame({ remoteHost: { host, port: Number(number) }, data: Buffer.from(target) });
    const answer = await new Promise((resolve) => {
      udp.once('message', resolve);
      udp.send(frame, remoteHost.port, remoteHost.host);
    });
    console.log(SocksClient.parseUDPFrame(answer).data.toString());
  }
  process.exit(0);
});
client.connect();
