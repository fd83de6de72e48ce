// Srcproxy decides by rules from which of a host's addresses traffic leaves.
//
// Run srcproxy help for its commands.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), env{os.Stdin, os.Stdout, os.Stderr, os.Getenv}, os.Args[1:]))
}
