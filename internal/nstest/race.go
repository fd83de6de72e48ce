//go:build linux

package nstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Race tells whether the program is built with the race detector in this run:
// when RACE=1 is in the environment. The figures of memory and time are then
// not what they should be.
func Race() bool { return os.Getenv("RACE") == "1" }

// goRace is what the detector reads its settings from.
const goRace = "GORACE"

// collectRaces has all programs of this run write their reports into files, since
// many tests do not look at what a program says, or kill it before its end.
func collectRaces(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil { // some programs run as nobody
		return err
	}
	reports := raceDir(dir)
	if err := os.Mkdir(reports, 0); err != nil {
		return err
	}
	if err := os.Chmod(reports, 0o777); err != nil { // not by Mkdir, which the umask holds back
		return err
	}
	return os.Setenv(goRace, "log_path="+filepath.Join(reports, "report"))
}

func raceDir(dir string) string { return filepath.Join(dir, "races") }

// RaceEnv is what a command needs in an environment that does not have it from
// the test: nothing, but where Race is true.
func RaceEnv() []string {
	if s, found := os.LookupEnv(goRace); found {
		return []string{goRace + "=" + s}
	}
	return nil
}

// takeRaces returns the reports that were written so far, and removes them.
func takeRaces(dir string) (reports []string, err error) {
	files, err := filepath.Glob(filepath.Join(raceDir(dir), "*"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr, os.Remove(file))
		reports = append(reports, fmt.Sprintf("%s:\n%s", filepath.Base(file), text))
	}
	return reports, err
}

// FailOnRaces fails t when its programs had races.
func FailOnRaces(t testing.TB) {
	t.Helper()
	reports, err := takeRaces(Dir(t))
	if err != nil {
		t.Error(err)
	}
	for _, report := range reports {
		t.Errorf("the race detector: %s", report)
	}
}
