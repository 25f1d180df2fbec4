package batch

import (
	batchv1 "k8s.io/api/batch/v1"

	"github.com/keelson/keelson/apiserver/kind"
)

// Group returns the declarations of API group batch.
func Group() kind.Group {
	return kind.Group{
		Name:        batchv1.GroupName,
		AddToScheme: batchv1.AddToScheme,
		Versions:    []string{"v1"},
		Kinds:       []*kind.Kind{cronJob(), job()},
	}
}
