// Package robustness runs etcd's own robustness checker, go.etcd.io/etcd/tests/v3/robustness, on a store in a file that is
// served by store/etcdserve: its traffic, its recording clients, its model for porcupine, and its validation of watches and of
// reads of older revisions. The server is killed and started again meanwhile.
//
// What etcd's checker reads from the logs of its members, the requests in the order in which they took effect, is
// made of the store's history here, and the order of the changes of one transaction of what the client asked for.
package robustness
