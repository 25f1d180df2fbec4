// Package e2e holds tests of the kubelet with the API server and real processes.
package e2e
