/* The judgement of one flow: the first rule that matches, and the source that it picks. No hook's context is read here. */

/* What is known of a flow. */
struct flow {
	struct address dst;
	__u16 port;       /* 0: unknown */
	__u16 local_port; /* 0: unknown */
	__u8 protocol;    /* a bit; 0: neither TCP nor UDP */
	__u8 is4;         /* no bool: an index made of it would have no bound that the verifier sees */
};

struct verdict {
	__s32 err;  /* negative: denied, or with bind no source is up */
	__u32 rule; /* index of its counter */
	bool bind;  /* to src and port; else the kernel chooses */
	bool stays; /* the same flow gets the same verdict until active changes */
	__u16 port; /* 0: any */
	__u32 mark;
	__u32 use;    /* with bind */
	__u32 member; /* that was picked */
	struct address src;
};

/* The table of the logarithm in internal/rendezvous. */
const volatile __u64 log2_table[257];

static __always_inline bool mapped(const struct address *a)
{
	return !(a->word[0] | a->word[1]) && a->word[2] == bpf_htonl(0xffff);
}

static __always_inline void map4(struct address *a, __u32 v4)
{
	a->word[0] = a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = v4;
}

/* The hash is that of internal/rendezvous: FNV-1a with the finalizer of SplitMix64. */
#define HASH_SEED 0xcbf29ce484222325ULL
#define HASH_PRIME 0x100000001b3ULL

static __always_inline __u64 mix(__u64 h)
{
	h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ULL;
	h = (h ^ h >> 27) * 0x94d049bb133111ebULL;
	return h ^ h >> 31;
}

static __always_inline __u64 hash_address(__u64 h, const struct address *a)
{
	const __u8 *byte = (const __u8 *)a;

	for (int i = 0; i < 16; i++)
		h = (h ^ byte[i]) * HASH_PRIME;
	return h;
}

static __always_inline __u64 hash_uint(__u64 h, __u64 v)
{
	for (int i = 0; i < 8; i++, v >>= 8)
		h = (h ^ (v & 0xff)) * HASH_PRIME;
	return h;
}

/* Without a branch: the verifier would follow each of the ways through them, in each round of a loop. */
static __always_inline __u64 leading_zeros(__u64 x)
{
	x |= x >> 1;
	x |= x >> 2;
	x |= x >> 4;
	x |= x >> 8;
	x |= x >> 16;
	x |= x >> 32;
	x = ~x; /* as many ones as x had zeros in front */
	x -= x >> 1 & 0x5555555555555555ULL;
	x = (x & 0x3333333333333333ULL) + (x >> 2 & 0x3333333333333333ULL);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return x * 0x0101010101010101ULL >> 56;
}

/* The cost of a member for a key; the least wins. */
static __always_inline __u64 cost(__u64 h, __u32 weight)
{
	__u64 x = mix(h) | 1, n = leading_zeros(x), i, low, high;

	x <<= n;
	i = x >> 55 & 0xff;
	low = log2_table[i];
	high = log2_table[i + 1];
	low += (high - low) * (x >> 23 & 0xffffffff) >> 32;
	return ((((n + 1) << 32) - low) << 20) / (weight ?: 1);
}

/* The hash of a sticky pool, by destination. */
static __always_inline __u64 sticky(const struct flow *f, const struct use *u, const struct settings *s)
{
	__u64 h = hash_address(HASH_SEED, &f->dst);

	if (u->span) {
		__u64 now = bpf_ktime_get_boot_ns() + s->wall;

		h = hash_uint(h, (now + h % u->span) / u->span);
	}
	return mix(h);
}

static __always_inline const struct member *member_at(__u32 slot, __u32 index)
{
	void *members_now = bpf_map_lookup_elem(&members, &slot);

	return members_now ? bpf_map_lookup_elem(members_now, &index) : NULL;
}

/* A walk over the members of a pool. */
struct pick {
	__u32 slot, first;
	__u32 is4;
	__s32 index; /* of the member picked, -1 for none */
	__u64 hash, least;
	__u64 total, left;
};

static __always_inline const struct member *serving(const struct pick *p, __u32 i)
{
	const struct member *m = member_at(p->slot, p->first + i);

	return m && m->up[p->is4 & 1] ? m : NULL;
}

static long pick_first(__u32 i, void *arg)
{
	struct pick *p = arg;

	if (!serving(p, i))
		return 0;
	p->index = p->first + i;
	return 1;
}

static long pick_least(__u32 i, void *arg)
{
	struct pick *p = arg;
	const struct member *m = serving(p, i);
	__u64 c;

	if (!m)
		return 0;
	c = cost(p->hash ^ m->id, m->weight);
	if (p->index >= 0 && c >= p->least)
		return 0;
	p->index = p->first + i;
	p->least = c;
	return 0;
}

static long add_up(__u32 i, void *arg)
{
	struct pick *p = arg;
	const struct member *m = serving(p, i);

	if (m)
		p->total += m->weight;
	return 0;
}

/* The members stand one after the other, each as long as its weight. */
static long pick_nth(__u32 i, void *arg)
{
	struct pick *p = arg;
	const struct member *m = serving(p, i);

	if (!m)
		return 0;
	p->index = p->first + i;
	if (p->left < m->weight)
		return 1;
	p->left -= m->weight;
	return 0;
}

/* The index of the member that a pool picks, -1 when none can serve. */
static __noinline __s32 pick(const struct flow *f, struct use *u, const struct settings *s, __u32 slot)
{
	struct pick p = { .slot = slot, .is4 = f->is4, .index = -1 };

	if (!u || !s)
		return -1;
	p.first = u->first;
	if (u->kind == FIRST_UP) {
		bpf_loop(u->count, pick_first, &p, 0);
		return p.index;
	}
	if (u->kind == STICKY) {
		p.hash = sticky(f, u, s);
		bpf_loop(u->count, pick_least, &p, 0);
		return p.index;
	}
	bpf_loop(u->count, add_up, &p, 0);
	if (!p.total)
		return -1;
	if (u->kind == ROUND_ROBIN)
		p.left = __sync_fetch_and_add(&u->turn, 1) % p.total;
	else
		p.left = ((__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32()) % p.total;
	bpf_loop(u->count, pick_nth, &p, 0);
	return p.index;
}

/* A walk over the candidates of a prefix. */
struct search {
	__u32 slot, first;
	__u16 port, local_port;
	__u8 protocol;
	bool found;
	struct candidate hit;
};

static long try(__u32 i, void *arg)
{
	struct search *s = arg;
	__u32 index = s->first + i;
	void *candidates_now = bpf_map_lookup_elem(&candidates, &s->slot);
	const struct candidate *c;

	if (!candidates_now)
		return 1;
	c = bpf_map_lookup_elem(candidates_now, &index);
	if (!c)
		return 1;
	if (c->protocol && !(c->protocol & s->protocol))
		return 0;
	if (s->port < c->port_low || s->port > c->port_high || s->local_port < c->local_low || s->local_port > c->local_high)
		return 0;
	s->found = true;
	s->hit = *c;
	return 1;
}

/* The use of an index. */
static __always_inline struct use *use_at(__u32 slot, __u32 index)
{
	void *uses_now = bpf_map_lookup_elem(&uses, &slot);

	return uses_now ? bpf_map_lookup_elem(uses_now, &index) : NULL;
}

static __always_inline const struct list *list_of(void *tries, __u32 slot, const struct address *a)
{
	struct prefix key = { .bits = 128, .address = *a };
	void *trie = bpf_map_lookup_elem(tries, &slot);

	return trie ? bpf_map_lookup_elem(trie, &key) : NULL;
}

/* Walks the candidates of an address; false when it has none that matches. */
static __always_inline bool search(struct search *s, const struct flow *f, const struct list *l, __u32 slot)
{
	s->slot = slot;
	s->first = l->first;
	s->port = f->port;
	s->local_port = f->local_port;
	s->protocol = f->protocol;
	s->found = false;
	if (l->count == 1) /* most often; a loop costs more */
		try(0, s);
	else if (l->count)
		bpf_loop(l->count, try, s, 0);
	return s->found;
}

/* The IPv4 address to which a gateway would pass a on: NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), IPv4-compatible. */
static __always_inline bool carries(const struct address *a, struct address *inner)
{
	const __u32 *w = a->word;

	if (w[0] == bpf_htonl(0x0064ff9b) && !(w[1] | w[2]))
		map4(inner, w[3]);
	else if (w[0] == bpf_htonl(0x0064ff9b) && (w[1] & bpf_htonl(0xffff0000)) == bpf_htonl(0x00010000))
		map4(inner, w[3]);
	else if ((w[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0x20020000))
		map4(inner, bpf_htonl(bpf_ntohl(w[0]) << 16 | bpf_ntohl(w[1]) >> 16));
	else if (!(w[0] | w[1] | w[2]) && w[3] && w[3] != bpf_htonl(1))
		map4(inner, w[3]);
	else
		return false;
	return true;
}

/* Whether the first rule that has a prefix around the IPv4 address inside dst denies it. A rule that names dst itself
 * comes before those below it. */
static __always_inline bool denied_inside(const struct flow *f, const struct search *s, __u32 slot)
{
	struct search second = {};
	struct address inner;
	const struct list *l;
	const struct use *u;

	if (f->is4 || !carries(&f->dst, &inner))
		return false;
	l = list_of(&carried, slot, &inner);
	if (!l || !search(&second, f, l, slot))
		return false;
	if (s->found && s->hit.deliberate && second.hit.rule >= s->hit.rule)
		return false;
	u = use_at(slot, second.hit.use);
	return !u || u->kind == DENY;
}

/* Fills in v what the use says. */
static __always_inline void decide(struct verdict *v, const struct flow *f, __u32 index, const struct settings *s, __u32 slot)
{
	struct use *u = use_at(slot, index);
	const struct member *m;
	__s32 i;

	if (!u || u->kind == DENY)
		return;
	v->err = 0;
	v->stays = u->count <= 1 || u->kind == FIRST_UP || (u->kind == STICKY && !u->span);
	if (u->kind == KERNEL)
		return;
	v->bind = true;
	v->err = -EADDRNOTAVAIL;
	v->use = index;
	i = u->count == 1 ? u->first : pick(f, u, s, slot);
	if (i < 0)
		return;
	m = member_at(slot, i);
	if (!m || !m->up[f->is4 & 1])
		return;
	v->err = 0;
	v->member = i;
	v->mark = m->mark;
	v->src = f->is4 ? m->v4 : m->v6;
}

/* Judges a flow. What the maps do not tell is refused. */
static __noinline int judge(const struct flow *flow, struct verdict *v, const struct settings *s, __u32 slot)
{
	struct search first = {};
	struct flow f = *flow;
	const struct list *l;

	/* The kernel connects the unspecified address to this host. */
	if (unspecified(&f.dst))
		f.dst.word[3] = bpf_htonl(f.is4 ? INADDR_LOOPBACK : 1);
	v->err = -EPERM;
	v->rule = NO_RULE;
	v->bind = v->stays = false;
	v->port = 0;
	v->member = NO_MEMBER;
	if (!s)
		return 0;
	l = list_of(&lists, slot, &f.dst);
	if (!l)
		return 0;
	v->rule = l->rule;
	if (search(&first, &f, l, slot)) {
		v->rule = first.hit.rule;
		v->port = first.hit.source_port;
	}
	if (denied_inside(&f, &first, slot))
		return 0;
	decide(v, &f, first.found ? first.hit.use : l->use, s, slot);
	return 0;
}
