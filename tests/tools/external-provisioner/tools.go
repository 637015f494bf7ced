//go:build tools

// Package tools pins the programs that the testkit builds.
package tools

import (
	_ "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"
)
