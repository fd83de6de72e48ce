# Reads the output of go test -v. See scripts/go-test.

# A package's output is kept until its last line tells whether anybody needs to see it.
{ output = output $0 "\n" }

progress && /^--- / {
	print
	fflush()
}

# "=== RUN TestX", "=== NAME TestX": whose log lines follow.
/^=== / { test = $3 }

/^ +[A-Za-z0-9_]+_test\.go:[0-9]+: / { said[test] = $0 }

# Not only at the start of a line: a test may have printed half a one.
/--- SKIP: / {
	name = $0
	sub(/.*--- SKIP: /, "", name)
	sub(/ \(.*/, "", name)
	reason = said[name]
	sub(/^ +/, "", reason)
	skipped[++skips] = name ": " (reason == "" ? "no reason given" : reason)
}

/^ok  \t/ {
	print
	forget()
}

/^(\?   |    )\t/ { forget() } # no test files

/^FAIL\t/ {
	printf "%s", output
	forget()
}

END {
	printf "%s", output
	if (skips == 0) exit 0
	printf "skipped tests: %d\n", skips
	for (i = 1; i <= skips; i++) print "    " skipped[i]
	if (ci == "true") {
		print "FAIL: under CI=true a skipped test is a failure"
		exit 1
	}
}

function forget() {
	output = ""
	split("", said)
	fflush()
}
