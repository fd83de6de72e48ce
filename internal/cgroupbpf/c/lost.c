/* Finds the sockets that leave from some addresses because a hook chose them: what no hook can do, as none runs for packets of
 * connected sockets. It runs for each socket in the memories of one set of hooks. */

#include "memory.h"

char __license[] SEC("license") = "MIT";

/* The addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct address);
	__type(value, __u8);
} lost SEC(".maps");

/* The cookies of their sockets, with the address that the hook bound; unspecified where a mark chose any. What finds no room
 * is found the next time. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct address);
} found SEC(".maps");

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	struct memory *value;
};

SEC("iter/bpf_sk_storage_map")
int find(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct memory *m = ctx->value;
	struct sock *sk = ctx->sk;
	struct address src;
	__u64 cookie;

	if (!sk || !m)
		return 0;
	src = m->src;
	if (bpf_map_lookup_elem(&lost, &src) || (m->marked && !m->own && unspecified(&src))) {
		cookie = bpf_get_socket_cookie(sk);
		bpf_map_update_elem(&found, &cookie, &src, BPF_ANY);
	}
	return 0;
}
