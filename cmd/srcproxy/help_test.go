package main

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeHasEveryCommand: README.md tells of each command, and each says what it and
// its flags are for.
func TestReadmeHasEveryCommand(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(text)
	_, readme, _ = strings.Cut(readme, "\n| command | does |\n")
	readme, _, found := strings.Cut(readme, "\n\n")
	if !found {
		t.Fatal("README.md has no table of commands")
	}
	for _, cmd := range new(app).root().Commands() {
		if !strings.Contains(readme, "`"+cmd.Name()+"`") {
			t.Errorf("README.md does not tell of %s", cmd.Name())
		}
		if cmd.Short == "" || cmd.Long == "" && cmd.Name() != "version" {
			t.Errorf("%s does not say what it is for", cmd.Name())
		}
		for line := range strings.Lines(cmd.LocalFlags().FlagUsages()) {
			if _, usage, _ := strings.Cut(strings.TrimSpace(line), "   "); usage == "" {
				t.Errorf("%s: the flag does not say what it is for: %s", cmd.Name(), line)
			}
		}
	}
}
