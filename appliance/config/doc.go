// Package config turns a configuration file into typed, validated values.
package config
