/* The rules as the maps hold them, and how a flow is judged by them. compile.go writes what is declared here. */

#include <linux/errno.h>
#include <linux/in.h>
#include "memory.h"

#define NO_RULE 0xffffffff /* as the index of a counter: counts nowhere */
#define NO_MEMBER 0xffffffff
#define SLOTS 2            /* the rules in use and the next ones */
#define MAX_CANDIDATES 4096
#define MAX_MEMBERS 256
#define MAX_WAYS 65536

/* The bits of a protocol, as in ruleset. */
enum { TCP = 1, UDP = 2 };

/* What a destination prefix leads to. */
struct list {
	__u32 first, count; /* of the candidates */
	__u32 use, rule;    /* what decides when no candidate does */
};

struct prefix {
	__u32 bits;
	struct address address;
};

/* A rule that may decide. Its conditions are ranges, both ends included; a lower end of 0 holds for an unknown port. */
struct candidate {
	__u32 rule, use;
	__u16 port_low, port_high;
	__u16 local_low, local_high;
	__u16 source_port; /* 0: any */
	__u8 protocol;     /* bits; 0: any */
	__u8 deliberate;   /* its prefix lies among addresses that carry an IPv4 address */
};

enum kind { DENY, KERNEL, FIRST_UP, ROUND_ROBIN, RANDOM, STICKY };

struct use {
	__u64 turn; /* of ROUND_ROBIN */
	__u64 span; /* of STICKY: nanoseconds after which a key may move; 0: never */
	enum kind kind;
	__u32 first, count; /* of the members */
	__u32 padding;
};

/* A source in a pool; one that stands alone is a pool of one. */
struct member {
	__u64 id; /* what stands for it in a hash */
	struct address v4, v6;
	__u32 weight;
	__u32 mark; /* 0: none */
	__u8 up[2]; /* in IPv6, in IPv4 */
	__u8 padding[6];
};

struct settings {
	__u64 netns; /* cookie of the only network namespace that the rules are for; 0: any */
	__s64 wall;  /* from the boot clock to the wall clock, in nanoseconds */
	__u32 row;   /* the counters of one CPU */
	__u8 override;
	__u8 mark_wildcard;
	__u8 log; /* decisions are told by events */
	__u8 padding[1];
};

struct counter {
	__u64 connects, datagrams, refused;
};

/* A destination to which the routing of this host gives, or does not give, a source to sockets that have a mark and no
 * address of their own. */
struct way {
	__u32 bits; /* of all that follows */
	__u32 mark;
	struct address src, dst;
};

/* For whom and until when the ways are known. */
struct survey {
	__u64 netns; /* cookie of the network namespace whose routing it is */
	__u64 until; /* by the boot clock; after that nobody has looked at the routes for too long */
};

/* The maps of the rules are pairs. The lowest bit of active says which one is in use; the other one is written, and then
 * active. It is a new number after each change of rules or members, and never again an earlier one, not even that of an
 * earlier process. 0: there are no rules yet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} active SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct trie {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct prefix);
	__type(value, struct list);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct trie);
} lists SEC(".maps");

/* The rules with a prefix, for the IPv4 address that an IPv6 address carries. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct trie);
} carried SEC(".maps");

#define PAIR(name, inner_type, value_type)                  \
	struct name##_array {                               \
		__uint(type, inner_type);                   \
		__uint(map_flags, BPF_F_INNER_MAP);         \
		__uint(max_entries, 1);                     \
		__type(key, __u32);                         \
		__type(value, value_type);                  \
	};                                                  \
	struct {                                            \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);   \
		__uint(max_entries, SLOTS);                 \
		__type(key, __u32);                         \
		__array(values, struct name##_array);       \
	} name SEC(".maps")

PAIR(candidates, BPF_MAP_TYPE_ARRAY, struct candidate);
PAIR(uses, BPF_MAP_TYPE_ARRAY, struct use);
PAIR(members, BPF_MAP_TYPE_ARRAY, struct member);
PAIR(counters, BPF_MAP_TYPE_ARRAY, struct counter); /* one row for each CPU */

/* What is not here does not lead to the source. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_WAYS);
	__type(key, struct way);
	__type(value, __u32);
} ways SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct survey);
} surveys SEC(".maps");
