package kubelet_test

import (
	"crypto/tls"

	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
)

func newSPDY(c *tls.Config) (*spdy.SpdyRoundTripper, error) { return spdy.NewRoundTripper(c) }
