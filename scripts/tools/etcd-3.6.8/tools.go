// etcd 3.6 with its client, another engine for the store's tests than Debian's 3.4; go.mod and go.sum pin them.

//go:build tools

package tools

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
