// Package connect serves the streaming subresources of the core group: the log, exec, attach and
// port-forward of pods by way of their node's kubelet, and the HTTP proxies to pods, services and nodes.
//
// Upgraded connections are passed through byte by byte, with two translations that kubelets leave to the API
// server: remote commands over WebSocket's v5.channel.k8s.io are run over SPDY, and SPDY tunnelled through a WebSocket (how
// kubectl forwards ports) is taken out of its tunnel.
package connect
