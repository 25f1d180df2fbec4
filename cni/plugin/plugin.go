// Package plugin is a pod network made by plugins of the CNI specification, which it runs as programs.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/keelson/keelson/cni"
)

// Options of New.
type Options struct {
	// ConfDir holds configuration lists (*.conflist); the first in name order is used, as by CRI runtimes. Default /etc/cni/net.d.
	ConfDir string
	// BinDirs hold the plugins. Default /opt/cni/bin.
	BinDirs []string
	// CacheDir keeps results between calls. Default /var/lib/cni.
	CacheDir string
	// IfName inside the pod. Default eth0.
	IfName string
}

// Network implements cni.Network.
type Network struct {
	opts Options
	cni  *libcni.CNIConfig
}

var _ cni.Network = (*Network)(nil)

// New returns a network. The configuration is read at each call, so it may come later.
func New(opts Options) (*Network, error) {
	if opts.ConfDir == "" {
		opts.ConfDir = "/etc/cni/net.d"
	}
	if len(opts.BinDirs) == 0 {
		opts.BinDirs = []string{"/opt/cni/bin"}
	}
	if opts.CacheDir == "" {
		opts.CacheDir = "/var/lib/cni"
	}
	if opts.IfName == "" {
		opts.IfName = "eth0"
	}
	return &Network{opts: opts, cni: libcni.NewCNIConfigWithCacheDir(opts.BinDirs, opts.CacheDir, nil)}, nil
}

func (n *Network) config() (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(n.opts.ConfDir, []string{".conflist"})
	if err != nil {
		return nil, fmt.Errorf("cni/plugin: %s: %w", n.opts.ConfDir, err)
	}
	var errs []error
	for _, f := range files {
		list, err := libcni.ConfListFromFile(f)
		if err == nil && len(list.Plugins) > 0 {
			return list, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", f, err))
	}
	return nil, fmt.Errorf("cni/plugin: no usable network configuration in %s: put a .conflist there: %w", n.opts.ConfDir, errors.Join(errs...))
}

func (n *Network) runtimeConf(s cni.Sandbox) *libcni.RuntimeConf {
	rc := &libcni.RuntimeConf{
		ContainerID: s.ID, NetNS: s.NetNS, IfName: n.opts.IfName,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", s.Namespace},
			{"K8S_POD_NAME", s.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", s.ID},
			{"K8S_POD_UID", s.UID},
		},
		CapabilityArgs: map[string]any{},
	}
	var ports []map[string]any
	for _, p := range s.HostPorts {
		m := map[string]any{"hostPort": p.HostPort, "containerPort": p.ContainerPort, "protocol": p.Protocol}
		if p.HostIP.IsValid() {
			m["hostIP"] = p.HostIP.String()
		}
		ports = append(ports, m)
	}
	if len(ports) > 0 {
		rc.CapabilityArgs["portMappings"] = ports
	}
	if len(s.Annotations) > 0 {
		rc.CapabilityArgs["io.kubernetes.cri.pod-annotations"] = s.Annotations
	}
	return rc
}

// Setup implements cni.Network by ADD. A repeated Setup answers from the cached result.
func (n *Network) Setup(ctx context.Context, s cni.Sandbox) (cni.Result, error) {
	list, err := n.config()
	if err != nil {
		return cni.Result{}, err
	}
	rc := n.runtimeConf(s)
	res, err := n.cni.GetNetworkListCachedResult(list, rc)
	if err != nil || res == nil {
		if res, err = n.cni.AddNetworkList(ctx, list, rc); err != nil {
			derr := n.cni.DelNetworkList(context.WithoutCancel(ctx), list, rc)
			return cni.Result{}, fmt.Errorf("cni/plugin: pod %s/%s: network %s: %w", s.Namespace, s.Name, list.Name, errors.Join(err, derr))
		}
	}
	r, err := current.NewResultFromResult(res)
	if err != nil {
		return cni.Result{}, fmt.Errorf("cni/plugin: result of network %s: %w", list.Name, err)
	}
	out := cni.Result{Interface: n.opts.IfName}
	seen := map[bool]bool{}
	for _, ip := range r.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && !seen[a.Unmap().Is4()] {
			out.IPs, seen[a.Unmap().Is4()] = append(out.IPs, a.Unmap()), true
		}
	}
	if len(out.IPs) == 0 {
		return cni.Result{}, fmt.Errorf("cni/plugin: network %s gave pod %s/%s no address", list.Name, s.Namespace, s.Name)
	}
	return out, nil
}

// Teardown implements cni.Network by DEL.
func (n *Network) Teardown(ctx context.Context, s cni.Sandbox) error {
	list, err := n.config()
	if err != nil {
		return err
	}
	if err := n.cni.DelNetworkList(ctx, list, n.runtimeConf(s)); err != nil {
		return fmt.Errorf("cni/plugin: network %s: %w", list.Name, err)
	}
	return nil
}

// Status implements cni.Network: there is a configuration and its plugins are found.
func (n *Network) Status(ctx context.Context) error {
	list, err := n.config()
	if err != nil {
		return err
	}
	if _, err := n.cni.ValidateNetworkList(ctx, list); err != nil {
		return fmt.Errorf("cni/plugin: network %s: %w", list.Name, err)
	}
	return nil
}
