package registry

import (
	"testing"

	"k8s.io/kubernetes/test/integration/etcd"
)

func TestX(t *testing.T) { t.Log(len(etcd.GetEtcdStorageData())) }
