package resource

import (
	"testing"

	"github.com/keelson/keelson/apiserver/kinds/internal/kindtest"
)

func TestRandomObjects(t *testing.T) { kindtest.Group(t, Group(Options{}), 300) }
