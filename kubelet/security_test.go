package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestSecures(t *testing.T) {
	k := &Kubelet{opts: Options{AllowedUnsafeSysctls: []string{"net.core.*", "kernel.msgmax"}}}
	pod := func(host bool, names ...string) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: host, HostIPC: host, SecurityContext: &corev1.PodSecurityContext{}}}
		for _, n := range names {
			p.Spec.SecurityContext.Sysctls = append(p.Spec.SecurityContext.Sysctls, corev1.Sysctl{Name: n, Value: "1"})
		}
		return p
	}
	for _, tc := range []struct {
		pod          *corev1.Pod
		reason, text string
	}{
		{pod: pod(false, "net.ipv4.ip_unprivileged_port_start", "net/core/somaxconn", "kernel.msgmax")},
		{pod: pod(false, "kernel.sem"), reason: "SysctlForbidden", text: `forbidden sysctl: "kernel.sem" not allowlisted`},
		{pod: pod(true, "net.ipv4.tcp_syncookies"), reason: "SysctlForbidden", text: `forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled`},
		{pod: pod(true, "kernel.msgmax"), reason: "SysctlForbidden", text: `forbidden sysctl: "kernel.msgmax" not allowed with host ipc enabled`},
	} {
		if reason, text := k.secures(tc.pod); reason != tc.reason || text != tc.text {
			t.Errorf("%v: %q %q, want %q %q", tc.pod.Spec.SecurityContext.Sysctls, reason, text, tc.reason, tc.text)
		}
	}
	p := pod(false)
	p.Spec.Containers = []corev1.Container{{SecurityContext: &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}}}
	if reason, _ := k.secures(p); (reason == "AppArmor") == hasAppArmor() {
		t.Errorf("AppArmor: %q, though the machine has it: %v", reason, hasAppArmor())
	}
}
