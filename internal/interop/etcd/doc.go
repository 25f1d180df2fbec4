// Package etcd has the tests of store/etcdstore beside a real etcd.
package etcd
