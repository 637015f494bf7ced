//go:build tools

// Package tools pins the programs that the testkit builds.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
