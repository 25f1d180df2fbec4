package apiserver_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
	"github.com/keelson/keelson/store/memstore"
)

// A cluster's API in a few lines: no socket, no files, nothing left behind.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	st, err := memstore.New(memstore.Options{})
	if err != nil {
		panic(err)
	}
	defer st.Close()
	srv, err := apiserver.New(st, apiserver.Options{})
	if err != nil {
		panic(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := srv.WaitReady(ctx); err != nil {
		panic(err)
	}
	c := srv.Client(apiserver.Admin)
	if err := c.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "greeting"}, Data: map[string]string{"text": "hello"},
	}); err != nil {
		panic(err)
	}
	cm := &corev1.ConfigMap{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: "default", Name: "greeting"}, cm); err != nil {
		panic(err)
	}
	fmt.Println(cm.Data["text"])
	// Output: hello
}
