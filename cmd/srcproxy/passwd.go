package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

// bcryptCost makes a check take some 70 ms.
const bcryptCost = 10

// maxPassword is what bcrypt looks at: more bytes would count for nothing.
const maxPassword = 72

func (a *app) passwdCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "passwd USER",
		Short: "print the line of a user for a users file",
		Long: `passwd reads a password from the terminal, or from the standard input, and prints the
line for the file that a listener names with users. The hash is bcrypt, as
htpasswd -B makes and reads it.`,
		Example: "  srcproxy passwd alice >> users",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(_ *cobra.Command, args []string) error { return a.passwd(args) },
	}
}

func (a *app) passwd(args []string) error {
	if len(args) != 1 {
		return usagef("which user?")
	}
	user := args[0]
	if err := checkUser(user); err != nil {
		return usageError{err}
	}
	password, err := a.readPassword()
	if err != nil {
		return err
	}
	hash, err := hashPassword(password)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"user": user, "hash": hash})
	}
	return a.print(user + ":" + hash + "\n")
}

// checkUser refuses names that a line cannot hold, or a SOCKS login (RFC 1929) or HTTP
// login (RFC 7617) cannot carry.
func checkUser(user string) error {
	switch {
	case user == "" || len(user) > 255:
		return fmt.Errorf("a user's name has 1 to 255 bytes, this one has %d", len(user))
	case strings.ContainsRune(user, ':') || strings.ContainsFunc(user, unicode.IsControl):
		return fmt.Errorf("%q: a user's name has no colon and no control characters", user)
	case user[0] == '#' || strings.TrimSpace(user) != user:
		return fmt.Errorf("%q: a user's name does not begin with # and has no blanks around it", user)
	}
	return nil
}

// hashPassword returns the bcrypt hash of a password, and refuses one of which bcrypt
// would look at a part only.
func hashPassword(password []byte) (string, error) {
	switch {
	case len(password) == 0:
		return "", errors.New("the password is empty")
	case len(password) > maxPassword:
		return "", fmt.Errorf("the password has %d bytes, and bcrypt looks at %d", len(password), maxPassword)
	case bytes.IndexByte(password, 0) >= 0:
		return "", errors.New("the password has a NUL, and bcrypt stops there")
	}
	hash, err := bcrypt.GenerateFromPassword(password, bcryptCost)
	return string(hash), err
}

// readPassword asks at the terminal, twice, or takes one line of the standard input.
func (a *app) readPassword() ([]byte, error) {
	if f, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return a.askPassword(int(f.Fd()))
	}
	const tooLong = 4096
	b, err := io.ReadAll(io.LimitReader(a.stdin, tooLong))
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(b, "\r\n") {
		return nil, errors.New("the password is one line; the standard input has more")
	}
	return b, nil
}

func (a *app) askPassword(fd int) ([]byte, error) {
	first, err := a.ask(fd, "Password: ")
	if err != nil {
		return nil, err
	}
	second, err := a.ask(fd, "Once more: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passwords differ")
	}
	return first, nil
}

func (a *app) ask(fd int, prompt string) ([]byte, error) {
	fmt.Fprint(a.stderr, prompt)
	b, err := term.ReadPassword(fd)
	fmt.Fprintln(a.stderr)
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	return b, nil
}
