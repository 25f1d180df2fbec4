// Package usage knows what objects use of a ResourceQuota, and counts it. It needs nothing of a server but a client.
package usage
