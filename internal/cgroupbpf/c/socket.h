/* What the hooks know of a socket, and what they do to it: its address, its mark, its answer. */

#include <asm/socket.h>
#include <linux/in6.h>

#define SOL_SOCKET 1
#define AF_INET 2
#define AF_INET6 10

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct memory);
} memories SEC(".maps");

#define SEEN 256

/* The cookies of sockets whose datagrams were judged on this CPU not long ago. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SEEN);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

/* One call of connect or sendmsg. */
struct call {
	struct flow flow;
	struct address src; /* the local address so far */
	__u16 held;         /* the local port so far */
	bool connected;
	bool v6; /* the hook is one for IPv6 addresses, mapped ones among them */
	struct verdict verdict;
	const struct settings *settings;
	__u64 generation;
	__u32 slot;
};

static __always_inline int refuse(int err)
{
	bpf_set_retval(err);
	return 0;
}

enum what { CONNECT, DATAGRAM, REFUSED };

static __always_inline void count(const struct call *c, enum what what)
{
	void *rows = bpf_map_lookup_elem(&counters, &c->slot);
	struct counter *n;
	__u32 index = c->verdict.rule;

	if (!rows || !c->settings || index == NO_RULE)
		return;
	index += c->settings->row * bpf_get_smp_processor_id();
	n = bpf_map_lookup_elem(rows, &index);
	if (!n)
		return;
	/* Another task of this CPU may come in between. */
	__sync_fetch_and_add(what == CONNECT ? &n->connects : what == DATAGRAM ? &n->datagrams : &n->refused, 1);
}

static __always_inline __u8 protocol_bit(__u32 protocol)
{
	return protocol == IPPROTO_TCP ? TCP : protocol == IPPROTO_UDP ? UDP : 0;
}

/* Fills in what all hooks read. False: the rules are for another network namespace. What is read of the rules later is
 * reached by the number that active has here (an address dependency), so that none of it is older, on no processor. */
static __always_inline bool begin(struct bpf_sock_addr *ctx, struct call *c)
{
	__u32 zero = 0;
	__u64 *now = bpf_map_lookup_elem(&active, &zero);

	c->flow.port = bpf_ntohs((__u16)ctx->user_port);
	c->flow.protocol = protocol_bit(ctx->protocol);
	c->flow.is4 = mapped(&c->flow.dst);
	c->generation = now ? *(volatile __u64 *)now : 0;
	c->slot = c->generation % SLOTS;
	c->settings = bpf_map_lookup_elem(&settings, &c->slot);
	return !c->settings || !c->settings->netns || c->settings->netns == bpf_get_netns_cookie(ctx);
}

/* Whether the local address is one that a hook chose, and not the program. */
static __always_inline bool ours(const struct memory *m, const struct call *c)
{
	if (!m)
		return false;
	if (unspecified(&m->src))
		return m->locked || (c->connected && !m->own);
	return same(&m->src, &c->src);
}

static __always_inline bool chosen(const struct memory *m, const struct call *c)
{
	return !unspecified(&c->src) && !ours(m, c);
}

/* Whether the program chose, and may. What the rules deny is refused all the same; whether they have a source up does not
 * matter then. */
static __always_inline bool respected(const struct memory *m, const struct call *c)
{
	const struct verdict *v = &c->verdict;

	if (!chosen(m, c) || !c->settings)
		return false;
	return v->bind ? !c->settings->override : !v->err;
}

static __always_inline int bind_to(struct bpf_sock_addr *ctx, const struct call *c, const struct address *a, __u16 port)
{
	if (c->v6) {
		struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = bpf_htons(port) };

		__builtin_memcpy(&to.sin6_addr, a, sizeof(*a));
		return bpf_bind(ctx, (struct sockaddr *)&to, sizeof(to));
	}
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = bpf_htons(port), .sin_addr.s_addr = a->word[3] };

	return bpf_bind(ctx, (struct sockaddr *)&to, sizeof(to));
}

static __always_inline struct memory *remember(struct bpf_sock_addr *ctx, struct memory *m)
{
	return m ?: bpf_sk_storage_get(&memories, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Whether the socket has sent before. A memory takes five times as long as a judgement, so those that send once, such as
 * a resolver's, get none. Another socket in its place only makes it later. */
static __always_inline bool returning(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx), *last;
	__u32 place = cookie % SEEN;

	last = bpf_map_lookup_elem(&seen, &place);
	if (!last)
		return false;
	if (*last == cookie)
		return true;
	*last = cookie;
	return false;
}

/* Sets the mark of a source, or takes that of an earlier one back. */
static __always_inline int mark(struct bpf_sock_addr *ctx, struct memory *m, __u32 mark)
{
	if (!mark && !m->marked)
		return 0;
	m->marked = mark != 0;
	m->last.generation = 0;
	return bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

/* The kernel is to choose: takes back an address that a hook bound for an earlier destination. A UDP socket is
 * remembered, since a later datagram to another destination would else seem to have its address from the program. */
static __always_inline int leave(struct bpf_sock_addr *ctx, const struct call *c, struct memory *m)
{
	struct address any = {};

	if (!m && c->flow.protocol != UDP)
		return 0;
	if (m && !unspecified(&c->src) && (!unspecified(&m->src) || m->marked) && c->held)
		return -EPERM;
	m = remember(ctx, m);
	if (!m || mark(ctx, m, 0))
		return -EPERM;
	m->src = any;
	if (unspecified(&c->src) || c->held)
		return 0;
	m->locked = 1;
	if (c->v6 && c->flow.is4)
		map4(&any, 0);
	return bind_to(ctx, c, &any, 0);
}

/* Whether the routing of this host, as it was seen not long ago, gives the source to a socket with its mark. A link that the
 * socket is bound to makes it another question. */
static __always_inline bool leads(struct bpf_sock_addr *ctx, const struct call *c)
{
	struct way key = {
		.bits = 8 * (sizeof(key) - sizeof(key.bits)),
		.mark = c->verdict.mark,
		.src = c->verdict.src,
		.dst = c->flow.dst,
	};
	__u32 zero = 0, *way;
	const struct survey *s = bpf_map_lookup_elem(&surveys, &zero);

	if (!s || s->until < bpf_ktime_get_boot_ns() || s->netns != bpf_get_netns_cookie(ctx) || ctx->sk->bound_dev_if)
		return false;
	way = bpf_map_lookup_elem(&ways, &key);
	return way && *way;
}

/* A port is held, and with it the address: what bpf_bind cannot change. */
static __always_inline int holding(struct bpf_sock_addr *ctx, const struct call *c, struct memory *m)
{
	const struct verdict *v = &c->verdict;

	if (v->port && v->port != c->held)
		return -EPERM;
	if (same(&c->src, &v->src))
		return 0;
	if (!unspecified(&c->src) || !c->settings || !c->settings->mark_wildcard || !v->mark || !leads(ctx, c))
		return -EPERM;
	/* The kernel takes the address of the policy route: it is none that the program chose. */
	return mark(ctx, m, v->mark);
}

static __always_inline int bind_source(struct bpf_sock_addr *ctx, const struct call *c, struct memory *m)
{
	const struct verdict *v = &c->verdict;
	int err;

	m = remember(ctx, m);
	if (!m)
		return -EPERM;
	if (c->held)
		return holding(ctx, c, m);
	err = mark(ctx, m, v->mark) ?: bind_to(ctx, c, &v->src, v->port);
	if (!err)
		m->src = v->src;
	return err;
}

