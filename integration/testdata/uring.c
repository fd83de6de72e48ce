// uring OPERATION ADDRESS PORT: one operation by io_uring(7), with no library: connect, connect-async (by a worker of the
// kernel), or sendmsg. Prints what the server answers.

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void fail(const char *what, int err)
{
	printf("%s: %s\n", what, strerrorname_np(err));
	exit(1);
}

// submit hands one entry to a ring of its own and returns its result.
static int submit(struct io_uring_sqe entry)
{
	struct io_uring_params p = {};
	int ring = syscall(__NR_io_uring_setup, 1, &p);
	if (ring < 0)
		fail("io_uring_setup", errno);
	size_t sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	size_t cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	char *sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	char *cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *entries = mmap(NULL, p.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || entries == MAP_FAILED)
		fail("mmap", errno);
	entries[0] = entry;
	((uint32_t *)(sq + p.sq_off.array))[0] = 0;
	atomic_fetch_add((_Atomic uint32_t *)(sq + p.sq_off.tail), 1);
	if (syscall(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		fail("io_uring_enter", errno);
	struct io_uring_cqe *done = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return done[0].res;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		fail("arguments", EINVAL);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	if (inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
		fail("address", EINVAL);
	int datagram = !strcmp(argv[1], "sendmsg");
	int s = socket(AF_INET, datagram ? SOCK_DGRAM : SOCK_STREAM, 0);
	struct iovec text = {.iov_base = "who", .iov_len = 3};
	struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &text, .msg_iovlen = 1};
	struct io_uring_sqe e = {.fd = s, .opcode = IORING_OP_CONNECT, .addr = (uintptr_t)&to, .off = sizeof(to)};
	if (datagram)
		e = (struct io_uring_sqe){.fd = s, .opcode = IORING_OP_SENDMSG, .addr = (uintptr_t)&message, .len = 1};
	if (!strcmp(argv[1], "connect-async"))
		e.flags = IOSQE_ASYNC;
	int result = submit(e);
	if (result < 0)
		fail(argv[1], -result);
	char answer[100] = "";
	if (recv(s, answer, sizeof(answer) - 1, 0) < 0)
		fail("recv", errno);
	printf("%s", answer);
	return 0;
}
