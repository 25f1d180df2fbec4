// Package kubectl drives an allinone cluster with the stock kubectl, on real pods.
package kubectl
