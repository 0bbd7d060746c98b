package engine

import (
	"context"

	"fcp"
)

func restore(_ context.Context, _, dir string, _ RestoreOptions) (RestoreResult, error) {
	return RestoreResult{Dir: dir}, fcp.Errorf(fcp.CodeInternal, "not in this build")
}

func (e *Engine) backup(_ context.Context, dir string, _ BackupOptions) (BackupResult, error) {
	return BackupResult{Dir: dir}, fcp.Errorf(fcp.CodeInternal, "not in this build")
}
