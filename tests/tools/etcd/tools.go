//go:build tools

// Package tools pins the programs that the testkit builds.
package tools

import _ "go.etcd.io/etcd/server/v3"
