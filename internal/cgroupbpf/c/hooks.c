/* The hooks of a cgroup: they choose the source of the connections and datagrams of programs that know nothing of it.
 *
 * connect4 and connect6 run in connect(2), sendmsg4 and sendmsg6 for each datagram that names its destination. A hook
 * that returns 0 refuses, with EPERM or the error that was set. */

#include "rules.h"
#include "judge.h"

#include <asm/socket.h>
#include <linux/in6.h>

#define SOL_SOCKET 1
#define AF_INET 2
#define AF_INET6 10

char __license[] SEC("license") = "MIT";

/* The compiler describes fully only what variables point to. */
const struct prefix *const described_prefix __attribute__((used));
const struct list *const described_list __attribute__((used));
const struct candidate *const described_candidate __attribute__((used));
const struct use *const described_use __attribute__((used));
const struct member *const described_member __attribute__((used));
const struct counter *const described_counter __attribute__((used));
const struct question *const described_question __attribute__((used));

/* What a hook knows of the local address of a socket that it has seen before. */
struct memory {
	struct address src; /* what it bound; unspecified: it let the kernel choose */
	__u8 locked;        /* the kernel keeps the address when the socket is disconnected */
	__u8 marked;        /* it has the mark of a source */
	__u8 padding[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct memory);
} memories SEC(".maps");

/* One call of connect or sendmsg. */
struct call {
	struct flow flow;
	struct address src; /* the local address so far */
	__u16 held;         /* the local port so far */
	bool connected;
	bool v6; /* the hook is one for IPv6 addresses, mapped ones among them */
	struct verdict verdict;
	const struct settings *settings;
};

static __always_inline int refuse(int err)
{
	bpf_set_retval(err);
	return 0;
}

enum what { CONNECT, DATAGRAM, REFUSED };

static __always_inline void count(__u32 slot, const struct call *c, enum what what)
{
	void *rows = bpf_map_lookup_elem(&counters, &slot);
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

/* Fills in what all hooks read. False: the rules are for another network namespace. */
static __always_inline bool begin(struct bpf_sock_addr *ctx, struct call *c, __u32 *slot)
{
	__u32 zero = 0, *now = bpf_map_lookup_elem(&active, &zero);

	c->flow.port = bpf_ntohs((__u16)ctx->user_port);
	c->flow.protocol = protocol_bit(ctx->protocol);
	c->flow.is4 = mapped(&c->flow.dst);
	*slot = now ? *now : 0;
	c->settings = bpf_map_lookup_elem(&settings, slot);
	return !c->settings || !c->settings->netns || c->settings->netns == bpf_get_netns_cookie(ctx);
}

/* Whether the local address is one that a hook chose, and not the program. */
static __always_inline bool ours(const struct memory *m, const struct call *c)
{
	if (!m)
		return false;
	if (unspecified(&m->src))
		return m->locked || c->connected;
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

/* Sets the mark of a source, or takes that of an earlier one back. */
static __always_inline int mark(struct bpf_sock_addr *ctx, struct memory *m, __u32 mark)
{
	if (!mark && !m->marked)
		return 0;
	m->marked = mark != 0;
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

/* A port is held, and with it the address: what bpf_bind cannot change. */
static __always_inline int holding(struct bpf_sock_addr *ctx, const struct call *c, struct memory *m)
{
	const struct verdict *v = &c->verdict;

	if (v->port && v->port != c->held)
		return -EPERM;
	if (same(&c->src, &v->src))
		return 0;
	if (!unspecified(&c->src) || !c->settings || !c->settings->mark_wildcard || !v->mark)
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

static __always_inline int on_connect(struct bpf_sock_addr *ctx, struct call *c)
{
	struct memory *m;
	__u32 slot;
	int err;

	if (!ctx->sk)
		return 1;
	if (!begin(ctx, c, &slot))
		return 1;
	c->held = ctx->sk->src_port;
	c->connected = ctx->sk->state == BPF_TCP_ESTABLISHED;
	c->flow.local_port = c->held;
	judge(&c->flow, &c->verdict, c->settings, slot);
	m = bpf_sk_storage_get(&memories, ctx->sk, 0, 0);
	err = c->verdict.err;
	if (respected(m, c))
		err = 0;
	else if (!err)
		err = c->verdict.bind ? bind_source(ctx, c, m) : leave(ctx, c, m);
	count(slot, c, err ? REFUSED : CONNECT);
	return err ? refuse(err) : 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct call c = {};

	map4(&c.flow.dst, ctx->user_ip4);
	if (ctx->sk)
		map4(&c.src, ctx->sk->src_ip4);
	return on_connect(ctx, &c);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct call c = { .v6 = true };

	for (int i = 0; i < 4; i++)
		c.flow.dst.word[i] = ctx->user_ip6[i];
	if (ctx->sk)
		for (int i = 0; i < 4; i++)
			c.src.word[i] = ctx->sk->src_ip6[i];
	return on_connect(ctx, &c);
}

/* Judges a datagram. Returns 0 to let it go from c->src, which is changed to what the rules say; else the error. */
static __always_inline int on_datagram(struct bpf_sock_addr *ctx, struct call *c)
{
	const struct memory *m = NULL;
	__u32 slot;
	int err;

	if (!ctx->sk || !begin(ctx, c, &slot))
		return 0;
	c->held = ctx->sk->src_port;
	c->connected = ctx->sk->state == BPF_TCP_ESTABLISHED;
	c->flow.local_port = c->held;
	judge(&c->flow, &c->verdict, c->settings, slot);
	err = c->verdict.err;
	if (!unspecified(&c->src) || (c->settings && c->settings->mark_wildcard))
		m = bpf_sk_storage_get(&memories, ctx->sk, 0, 0);
	if (respected(m, c)) {
		err = 0;
	} else if (!err) {
		/* Neither the port nor the mark of a socket can be another for one datagram. */
		if (c->verdict.port && c->verdict.port != c->held)
			err = -EPERM;
		if (!c->verdict.bind && m && m->marked)
			err = -EPERM;
		c->src = c->verdict.src;
	}
	count(slot, c, err ? REFUSED : DATAGRAM);
	return err;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct call c = {};
	int err;

	map4(&c.flow.dst, ctx->user_ip4);
	map4(&c.src, ctx->msg_src_ip4);
	err = on_datagram(ctx, &c);
	if (err)
		return refuse(err);
	ctx->msg_src_ip4 = c.src.word[3];
	return 1;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct call c = { .v6 = true };
	int err;

	for (int i = 0; i < 4; i++) {
		c.flow.dst.word[i] = ctx->user_ip6[i];
		c.src.word[i] = ctx->msg_src_ip6[i];
	}
	err = on_datagram(ctx, &c);
	if (err)
		return refuse(err);
	/* Each at an offset of its own from ctx: the verifier does not let a pointer into it be made. */
	ctx->msg_src_ip6[0] = c.src.word[0];
	barrier();
	ctx->msg_src_ip6[1] = c.src.word[1];
	barrier();
	ctx->msg_src_ip6[2] = c.src.word[2];
	barrier();
	ctx->msg_src_ip6[3] = c.src.word[3];
	return 1;
}

/* A flow to be judged without a socket, and the answer: how tests ask what the maps hold. */
struct question {
	struct address dst;
	__u16 port, local_port;
	__u8 protocol;
	__u8 bind;
	__u16 source_port;
	__s32 err;
	__u32 rule;
	struct address src;
};

SEC("xdp")
int ask(struct xdp_md *ctx)
{
	struct question *q = (void *)(long)ctx->data;
	struct call c = {};
	__u32 zero = 0, *slot = bpf_map_lookup_elem(&active, &zero);

	if ((void *)(q + 1) > (void *)(long)ctx->data_end || !slot)
		return XDP_ABORTED;
	c.flow.dst = q->dst;
	c.flow.port = q->port;
	c.flow.local_port = q->local_port;
	c.flow.protocol = q->protocol;
	c.flow.is4 = mapped(&c.flow.dst);
	c.settings = bpf_map_lookup_elem(&settings, slot);
	judge(&c.flow, &c.verdict, c.settings, *slot);
	q->bind = c.verdict.bind && !c.verdict.err;
	q->source_port = c.verdict.port;
	q->err = c.verdict.err;
	q->rule = c.verdict.rule;
	q->src = c.verdict.src;
	return XDP_PASS;
}
