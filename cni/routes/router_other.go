//go:build !linux

package routes

import (
	"context"
	"fmt"
	"runtime"

	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// Router needs Linux.
type Router struct{}

// New fails: routes are programmed on Linux only.
func New(cache.Cache, Options) (*Router, error) {
	return nil, fmt.Errorf("cni/routes: needs Linux, this is %s", runtime.GOOS)
}

// Run fails.
func (*Router) Run(context.Context) error { return fmt.Errorf("cni/routes: needs Linux") }
