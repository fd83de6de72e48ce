package config

import (
	"fmt"
	"strings"
)

// maxNames bounds how many names a hint lists.
const maxNames = 24

// suggest returns the word that got was meant to be, or nothing.
func suggest(got string, words []string) string {
	best, bestDistance := "", len(got)
	got = plain(got)
	if len(got) > 64 {
		return ""
	}
	for _, w := range words {
		p := plain(w)
		d := distance(got, p)
		if len(got) >= 3 && strings.HasPrefix(p, got) {
			d = min(d, 1)
		}
		if d <= max(1, len(got)/3) && d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best
}

// plain removes what people spell in several ways.
func plain(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
}

// distance is the number of bytes to insert, remove, exchange or swap with the next
// one between a and b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			exchange := last[j]
			if a[i] != b[j] {
				exchange++
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, exchange)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

// didYouMean returns a hint for got where one of words has to stand; what says what
// the words are: "known keys:".
func didYouMean(got string, words []string, what string) string {
	if w := suggest(got, words); w != "" {
		return fmt.Sprintf("did you mean %q?", w)
	}
	return what + " " + enumerate(words)
}

// enumerate returns "a, b, c", shortened when there are many.
func enumerate(words []string) string {
	if len(words) > maxNames {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:maxNames], ", "), len(words)-maxNames)
	}
	return strings.Join(words, ", ")
}

// maxCompared bounds how many names meant looks at: half a second for the errors of
// one file, and all that are wanted in a file of usual size.
const maxCompared = 1 << 16

// meant returns what didYouMean does, as long as there are errors to tell and names
// left to look at.
func (d *decoder) meant(got string, words []string, what string) string {
	if len(d.errs) == maxCollected {
		return ""
	}
	d.compared += len(words)
	if d.compared > maxCompared {
		return what + " " + enumerate(words)
	}
	return didYouMean(got, words, what)
}
