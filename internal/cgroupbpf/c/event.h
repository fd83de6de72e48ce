/* What the hooks tell of their decisions, where the settings want that: an event for each that counts for a rule. A
 * datagram that the memory of its socket answers belongs to a flow that has been told. */

enum {
	SENT = 1, /* a datagram with a destination of its own, not a connect */
	OWN = 2,  /* from the address that the program chose */
};

struct event {
	__u64 at;         /* by the boot clock, in nanoseconds */
	__u64 generation; /* whose rules and members are meant */
	struct address dst, src;
	__u32 rule;
	__u32 use;    /* that had no member up, where verdict says that */
	__u32 member; /* NO_MEMBER: none was picked */
	__u32 pid, uid;
	__s32 err;     /* 0: it was let through */
	__s32 verdict; /* what of err the rules say; else the hook could not do what they say */
	__u16 port, local_port;
	__u16 source_port; /* that the rule wants; 0: any */
	__u8 protocol;     /* of IP */
	__u8 manner;
	char comm[16];
};

/* Empty where nothing is to be told. What is there is as large as the reader wants it. */
struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* Events that found no room. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

static __always_inline void drop(void)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&dropped, &zero);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline bool told(const struct call *c)
{
	return c->settings && c->settings->log && c->verdict.rule != NO_RULE;
}

/* The reader looks by the clock: to wake it each time would cost more than the decision. */
static __noinline int write_event(const struct call *c, __u32 protocol, int err, __u32 manner)
{
	void *ring = bpf_map_lookup_elem(&rings, &c->slot);
	const struct verdict *v = &c->verdict;
	struct event *e;

	if (!ring)
		return 0;
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e) {
		drop();
		return 0;
	}
	e->at = bpf_ktime_get_boot_ns();
	e->generation = c->generation;
	e->dst = c->flow.dst;
	e->src = c->src;
	e->rule = v->rule;
	e->use = v->use;
	e->member = v->member;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->uid = bpf_get_current_uid_gid();
	e->err = err;
	e->verdict = v->err;
	e->port = c->flow.port;
	e->local_port = c->held;
	e->source_port = v->port;
	e->protocol = protocol;
	e->manner = manner;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}
