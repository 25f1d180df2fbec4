// Package etcdserve has the tests of store/etcdserve beside etcd's own tools, kube-apiserver and etcd's
// robustness checker.
package etcdserve
