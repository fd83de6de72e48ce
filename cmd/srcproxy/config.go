package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/srcproxy/srcproxy/internal/config"
)

// Where the configuration is, when -c does not say.
const (
	configVariable = "SRCPROXY_CONFIG"
	configFile     = "/etc/srcproxy/config.toml"
)

// configPath returns the file to read, or nothing for the built-in configuration.
func (a *app) configPath() string {
	if a.file != "" {
		return a.file
	}
	if path := a.getenv(configVariable); path != "" {
		return path
	}
	if _, err := os.Stat(configFile); !errors.Is(err, fs.ErrNotExist) {
		return configFile // also when it cannot be read: that is an error, and not a reason to serve something else
	}
	return ""
}

// load reads the configuration.
func (a *app) load() (*config.Config, error) {
	if path := a.configPath(); path != "" {
		return config.Load(path)
	}
	return config.Default(), nil
}
