//go:build race

package pktinfo_test

const raceEnabled = true
