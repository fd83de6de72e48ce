// load KIND ADDRESS PORT COUNT: bulk sends COUNT MiB over one connection; short opens COUNT connections, one after the other,
// that carry 64 bytes each way; datagrams sends COUNT datagrams of 64 bytes from one socket, each with its destination, and
// connected from a connected socket. Prints the nanoseconds it took.

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 20];
static struct sockaddr_in to = {.sin_family = AF_INET};

static void check(long result, const char *what)
{
	if (result >= 0)
		return;
	perror(what);
	exit(1);
}

static int dial(void)
{
	int s = socket(AF_INET, SOCK_STREAM, 0);
	check(s, "socket");
	check(connect(s, (struct sockaddr *)&to, sizeof(to)), "connect");
	return s;
}

static void bulk(long count)
{
	int s = dial();
	for (long i = 0; i < count; i++)
		for (size_t done = 0; done < sizeof(buffer);) {
			ssize_t n = write(s, buffer + done, sizeof(buffer) - done);
			check(n, "write");
			done += n;
		}
	check(shutdown(s, SHUT_WR), "shutdown");
	check(read(s, buffer, 1), "read"); // the server has all
	close(s);
}

static void shorts(long count)
{
	for (long i = 0; i < count; i++) {
		int s = dial();
		check(write(s, buffer, 64), "write");
		check(recv(s, buffer, 64, MSG_WAITALL), "recv");
		close(s);
	}
}

static void datagrams(long count, int connected)
{
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	check(s, "socket");
	if (connected)
		check(connect(s, (struct sockaddr *)&to, sizeof(to)), "connect");
	for (long i = 0; i < count; i++)
		check(sendto(s, buffer, 64, 0, connected ? NULL : (struct sockaddr *)&to, connected ? 0 : sizeof(to)), "sendto");
	close(s);
}

int main(int argc, char **argv)
{
	struct timespec start, end;

	if (argc != 5 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[3]));
	long count = atol(argv[4]);
	clock_gettime(CLOCK_MONOTONIC, &start);
	if (!strcmp(argv[1], "bulk"))
		bulk(count);
	else if (!strcmp(argv[1], "short"))
		shorts(count);
	else
		datagrams(count, !strcmp(argv[1], "connected"));
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%ld\n", (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec);
	return 0;
}
