// node get.mjs WAY PROXY URL: prints the body of URL, fetched through PROXY by one of the packages.
import http from 'node:http';
import https from 'node:https';
import { SocksClient } from 'socks';
import { SocksProxyAgent } from 'socks-proxy-agent';
import { HttpsProxyAgent } from 'https-proxy-agent';
import { ProxyAgent } from 'proxy-agent';
import { ProxyAgent as UndiciProxyAgent, request } from 'undici';

// withAgent fetches url with Node's own client and an agent.
function withAgent(url, agent) {
  const get = url.startsWith('https:') ? https.get : http.get;
  return new Promise((resolve, reject) => {
    get(url, { agent, rejectUnauthorized: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (part) => (body += part));
      response.on('end', () => resolve(body));
      response.on('error', reject);
    }).on('error', reject);
  });
}

// withSocks fetches an http url over a connection of SocksClient.
async function withSocks(proxy, url) {
  const { hostname, port, username, password, protocol } = new URL(proxy);
  const target = new URL(url);
  const options = {
    proxy: { host: hostname, port: Number(port), type: protocol === 'socks4:' ? 4 : 5 },
    command: 'connect',
    destination: { host: target.hostname.replace(/^\[|\]$/g, ''), port: Number(target.port || 80) },
  };
  if (username) Object.assign(options.proxy, { userId: username, password });
  const { socket } = await SocksClient.createConnection(options);
  return withAgent(url, Object.assign(new http.Agent(), { createConnection: () => socket }));
}

async function withUndici(proxy, url) {
  const dispatcher = new UndiciProxyAgent({ uri: proxy, requestTls: { rejectUnauthorized: false } });
  const { body } = await request(url, { dispatcher });
  return body.text();
}

const ways = {
  socks: withSocks,
  'socks-proxy-agent': (proxy, url) => withAgent(url, new SocksProxyAgent(proxy)),
  'https-proxy-agent': (proxy, url) => withAgent(url, new HttpsProxyAgent(proxy)),
  'proxy-agent': (proxy, url) => withAgent(url, new ProxyAgent({ getProxyForUrl: () => proxy })),
  undici: withUndici,
};

const [way, proxy, url] = process.argv.slice(2);
process.stdout.write(await ways[way](proxy, url));
process.exit(0); // agents keep their connections open
