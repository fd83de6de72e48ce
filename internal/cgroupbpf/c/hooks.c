/* The hooks of a cgroup: they choose the source of the connections and datagrams of programs that know nothing of it.
 *
 * connect4 and connect6 run in connect(2), sendmsg4 and sendmsg6 for each datagram that names its destination. A hook
 * that returns 0 refuses, with EPERM or the error that was set. */

#include "rules.h"
#include "judge.h"
#include "socket.h"
#include "event.h"

char __license[] SEC("license") = "MIT";

/* The compiler describes fully only what variables point to. */
const struct prefix *const described_prefix __attribute__((used));
const struct list *const described_list __attribute__((used));
const struct candidate *const described_candidate __attribute__((used));
const struct use *const described_use __attribute__((used));
const struct member *const described_member __attribute__((used));
const struct counter *const described_counter __attribute__((used));
const struct question *const described_question __attribute__((used));
const struct way *const described_way __attribute__((used));
const struct survey *const described_survey __attribute__((used));
const struct event *const described_event __attribute__((used));

static __always_inline int on_connect(struct bpf_sock_addr *ctx, struct call *c)
{
	struct memory *m;
	bool own;
	int err;

	if (!ctx->sk || !begin(ctx, c))
		return 1;
	c->held = ctx->sk->src_port;
	c->connected = ctx->sk->state == BPF_TCP_ESTABLISHED;
	c->flow.local_port = c->held;
	judge(&c->flow, &c->verdict, c->settings, c->slot);
	m = bpf_sk_storage_get(&memories, ctx->sk, 0, 0);
	err = c->verdict.err;
	own = respected(m, c);
	if (own)
		err = 0;
	else if (!err)
		err = c->verdict.bind ? bind_source(ctx, c, m) : leave(ctx, c, m);
	if (m && !err)
		m->own = own;
	count(c, err ? REFUSED : CONNECT);
	if (told(c)) {
		if (!own && (c->verdict.bind || !c->held))
			c->src = c->verdict.src; /* also by its mark, where that leads to it */
		write_event(c, ctx->protocol, err, own ? OWN : 0);
	}
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

/* Whether the datagram is as the last one was, and the rules are. */
static __always_inline bool again(const struct memory *m, const struct call *c)
{
	const struct answer *a = &m->last;

	return a->generation && a->generation == c->generation && a->port == c->flow.port && a->local_port == c->held &&
	       same(&a->dst, &c->flow.dst);
}

static __always_inline void keep(struct memory *m, const struct call *c)
{
	struct answer *a = &m->last;

	a->generation = c->generation;
	a->dst = c->flow.dst;
	a->src = c->verdict.src;
	a->port = c->flow.port;
	a->local_port = c->held;
	a->rule = c->verdict.rule;
}

/* The error for a datagram that has no address of its own, or one that a hook gave its socket. */
static __always_inline int unfit(const struct memory *m, const struct call *c)
{
	const struct verdict *v = &c->verdict;

	if (v->err)
		return v->err;
	/* Neither the port nor the mark of a socket can be another for one datagram. */
	if (v->port && v->port != c->held)
		return -EPERM;
	if (!v->bind && m && m->marked)
		return -EPERM;
	return 0;
}

/* Judges a datagram. Returns 0 to let it go from c->src, which is changed to what the rules say; else the error. */
static __always_inline int on_datagram(struct bpf_sock_addr *ctx, struct call *c)
{
	struct memory *m;
	bool own;
	int err = 0;

	if (!ctx->sk || !begin(ctx, c))
		return 0;
	c->held = ctx->sk->src_port;
	m = bpf_sk_storage_get(&memories, ctx->sk, 0, 0);
	if (m && unspecified(&c->src) && again(m, c)) {
		c->src = m->last.src;
		c->verdict.rule = m->last.rule;
		count(c, DATAGRAM);
		return 0;
	}
	c->connected = ctx->sk->state == BPF_TCP_ESTABLISHED;
	c->flow.local_port = c->held;
	judge(&c->flow, &c->verdict, c->settings, c->slot);
	own = respected(m, c);
	if (!own) {
		err = unfit(m, c);
		if (!err && c->verdict.stays && unspecified(&c->src) && (m || told(c) || returning(ctx))) {
			m = remember(ctx, m);
			if (m)
				keep(m, c);
		}
		c->src = c->verdict.src;
	}
	count(c, err ? REFUSED : DATAGRAM);
	if (told(c))
		write_event(c, ctx->protocol, err, SENT | (own ? OWN : 0));
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
	__u32 zero = 0;
	__u64 *now = bpf_map_lookup_elem(&active, &zero);

	if ((void *)(q + 1) > (void *)(long)ctx->data_end || !now)
		return XDP_ABORTED;
	c.slot = *now % SLOTS;
	c.flow.dst = q->dst;
	c.flow.port = q->port;
	c.flow.local_port = q->local_port;
	c.flow.protocol = q->protocol;
	c.flow.is4 = mapped(&c.flow.dst);
	c.settings = bpf_map_lookup_elem(&settings, &c.slot);
	judge(&c.flow, &c.verdict, c.settings, c.slot);
	q->bind = c.verdict.bind && !c.verdict.err;
	q->source_port = c.verdict.port;
	q->err = c.verdict.err;
	q->rule = c.verdict.rule;
	q->src = c.verdict.src;
	return XDP_PASS;
}
