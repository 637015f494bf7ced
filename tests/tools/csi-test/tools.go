//go:build tools

// Package tools pins the programs that the testkit builds.
package tools

import (
	_ "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
)
