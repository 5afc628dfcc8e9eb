// Helm, which tests install the chart with; go.mod and go.sum pin it.

//go:build tools

package tools

import _ "helm.sh/helm/v3/cmd/helm"
