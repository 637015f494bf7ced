//go:build tools

// Package tools pins the programs that the testkit builds.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
