// node bind.mjs PROXY PEER: waits by BIND of the socks package for PEER to connect. Prints where it
// is to connect to, and then the line that it sends.
import { SocksClient } from 'socks';

const [proxy, peer] = process.argv.slice(2);
const { hostname, port } = new URL(proxy);
const client = new SocksClient({
  proxy: { host: hostname, port: Number(port), type: 5 },
  command: 'bind',
  destination: { host: peer, port: 0 },
});
client.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
client.on('bound', ({ remoteHost }) => console.log(`${remoteHost.host}:${remoteHost.port}`));
client.on('established', ({ socket }) => {
  socket.on('data', (data) => {
    console.log(data.toString().trim());
    process.exit(0);
  });
  socket.resume();
});
client.connect();
