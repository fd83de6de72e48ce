/* What hooks remember of a socket. */

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* An address in network order; IPv4 is mapped (RFC 4291 section 2.5.5.2). */
struct address {
	__u32 word[4];
};

/* What the last datagram of a socket that had no address of its own was told. */
struct answer {
	__u64 generation; /* what active was then */
	struct address dst, src;
	__u16 port, local_port;
	__u32 rule;
};

/* What a hook knows of a socket that it has seen before. It holds the lock of the socket. */
struct memory {
	struct address src; /* what it bound; unspecified: nothing, and what connect brought is the kernel's unless it is own */
	__u8 locked;        /* the kernel keeps the address when the socket is disconnected */
	__u8 marked;        /* it has the mark of a source */
	__u8 own;           /* it is connected from an address that the program chose */
	__u8 padding[5];
	struct answer last;
};

static __always_inline bool same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

static __always_inline bool unspecified(const struct address *a)
{
	return !(a->word[0] | a->word[1] | a->word[3]) && (!a->word[2] || a->word[2] == bpf_htonl(0xffff));
}
