// Customscheduler adds a rule of its own to the scheduler: pods go only to nodes in the rack they name.
//
//	go run ./examples/customscheduler
package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/examples/internal/compose"
	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// SameRack is the rule.
type SameRack struct{}

// Name implements scheduler.Plugin.
func (SameRack) Name() string { return "SameRack" }

// Filter implements scheduler.FilterPlugin.
func (SameRack) Filter(pod *scheduler.Pod, node *scheduler.Node) *scheduler.Rejection {
	if pod.Object.Labels["rack"] == node.Object.Labels["rack"] {
		return nil
	}
	return scheduler.Reject("node(s) were in another rack")
}

func main() {
	compose.Main("customscheduler", run)
}

func run(ctx context.Context) error {
	profile := append(plugins.Default(), scheduler.Weighted{Plugin: SameRack{}})
	return compose.Demo(ctx, compose.Options{Nodes: 2, Runtime: "fake", Profile: profile}, func(ctx context.Context, c *compose.Cluster) error {
		api := c.Server.Client(apiserver.Admin)
		if err := compose.Label(ctx, api, "node-2", "rack", "b"); err != nil {
			return err
		}
		for _, rack := range []string{"b", "nowhere"} {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "in-rack-" + rack, Namespace: "default", Labels: map[string]string{"rack": rack}}}
			pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "app"}}
			if err := api.Create(ctx, pod); err != nil {
				return err
			}
			err := compose.Poll(ctx, func() (bool, error) {
				err := api.Get(ctx, client.ObjectKeyFromObject(pod), pod)
				return pod.Spec.NodeName != "" || len(pod.Status.Conditions) > 0, err
			})
			if err != nil {
				return err
			}
			if pod.Spec.NodeName != "" {
				fmt.Printf("%s goes to %s\n", pod.Name, pod.Spec.NodeName)
			} else {
				fmt.Printf("%s waits: %s\n", pod.Name, pod.Status.Conditions[0].Message)
			}
		}
		return nil
	})
}
